/** Recommendations from MatchLoop, and what users did with them. Fields are called as in the API's description
 * (/openapi.json, where they are explained); those left out mean its defaults. */

export type Value = boolean | number | string;

export interface FilterBody {
  items?: string[];
  categories?: string[];
}

/** For a while, in ms since the epoch; its distance from 1 halves in half_life_hours, from since on. */
export interface Boosting {
  factor: number;
  since?: number;
  until?: number;
  half_life_hours?: number;
}

export interface RecommendationRequest {
  user_id: string;
  slate_size?: number;
  surface?: string;
  context?: Record<string, Value>;
  exclude?: FilterBody | string[];
  only?: FilterBody | string[];
  filter?: string;
  boosts?: Record<string, Boosting | number>;
  caps?: Record<string, number>;
  pins?: Record<string, number>;
  diversity?: number;
  with?: string[];
  cursor?: string;
  explain?: boolean;
}

export interface LevelsOfEstimate {
  group: number;
  item: number;
  edges: Record<string, number>;
  deviation: number;
  trials: number;
  reward: number;
  optimism: number;
  boost: number;
}

export interface Explanation {
  predicted: number;
  mean: number;
  bonus: number;
  clusters: Record<string, number>;
  levels: LevelsOfEstimate | null;
}

export interface RecommendedItem {
  id: string;
  position: number;
  score: number;
  source: string;
  probability: number;
  title?: string | null;
  categories?: string[] | null;
  attributes?: Record<string, Value> | null;
  explanation?: Explanation | null;
}

export interface RecommendationAnswer {
  decision_id: string;
  items: RecommendedItem[];
  logged: boolean;
  next: string | null;
  variant: string;
  release: string;
  path: string;
  degraded: string[];
  parameter_offsets: number[];
  rules?: Record<string, number> | null;
}

/** An event gets an `event_id` and a `time` (ms since the epoch) if it has none. To send it again yourself, give it an id:
 * by it an event counts once. */
export interface FeedbackEvent {
  decision_id: string;
  item_id: string;
  type: string;
  value?: number;
  time?: number;
  event_id?: string;
}

export interface UserEvent {
  user_id: string;
  item_id: string;
  type: string;
  value?: number;
  session_id?: string;
  time?: number;
  event_id?: string;
}

export interface EventStatus {
  event_id: string;
  status: string;
  reason?: string | null;
  partition?: number | null;
  offset?: number | null;
}

export interface FeedbackAnswer {
  events: EventStatus[];
}

export interface BrokenRule {
  field: string;
  value: unknown;
  rule: string;
}

/** The API answered that it did not do it; `code` is `unreadable` if the answer was not the API's. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  /** What the API said; `message` says it with the call and the broken rules. */
  readonly reason: string;
  readonly details: BrokenRule[];
  readonly events: EventStatus[] | null;
}

/** There was no answer: the API could not be reached, or not in time. It may have done what was asked for. */
export class NoAnswer extends Error {}

export interface Settings {
  /** Everybody can read the key that a page has: give it the scopes recommend and feedback alone. */
  apiKey?: string;
  /** For each attempt. */
  timeoutMs?: number;
  /** After these no attempt begins; 0: there is one. */
  retryMs?: number;
  fetch?: typeof fetch;
}

/** What the API was too busy for (503), and what came too often (429), is sent again, after Retry-After and a pause drawn at
 * random; so are events that got no answer. A recommendation is not: each answer counts as shown. */
export class Client {
  constructor(url: string | URL, settings?: Settings);
  recommend(request: RecommendationRequest): Promise<RecommendationAnswer>;
  /** What users did with recommended items: 1 to 1,000 events. */
  sendFeedback(...events: FeedbackEvent[]): Promise<FeedbackAnswer>;
  /** What users did wherever they found the items: 1 to 1,000 events. */
  sendEvents(...events: UserEvent[]): Promise<FeedbackAnswer>;
}
